/* How often the runs of a grid succeeded, beside the paper's figures and PyTorch's. */
#ifndef QUEST_RETRIEVAL_TABLE_H
#define QUEST_RETRIEVAL_TABLE_H

#include "src/base/error.h"

/* Prints the table of all finished runs under `out`. ERROR_INPUT where there is none. */
bool retrieval_table_print(const char *out, struct error *error);

#endif
