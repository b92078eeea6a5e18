/* attention_pass TOKENS forward|statistics|backward|standard [HEAD_DIM]: one pass of QUEST attention, batch 1, 3 heads,
 * head_dim 64 unless given, bfloat16, for attention_counts.py to count in the simulator. (backward runs the forward
 * pass first; standard is the forward pass of standard attention.) */
#include "tests/cuda/device_attention.h"

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 4)
        return 2;
    struct trial trial;
    enum attention_kind kind = strcmp(argv[2], "standard") == 0 ? ATTENTION_STANDARD : ATTENTION_QUEST;
    size_t head_dim = argc == 4 ? strtoul(argv[3], NULL, 10) : 64;
    struct attention_shape shape = {kind, 1, strtoul(argv[1], NULL, 10), 3, head_dim};
    trial_new(&trial, shape, DTYPE_BFLOAT16, 1);
    trial_forward(&trial, strcmp(argv[2], "statistics") == 0);
    if (strcmp(argv[2], "backward") == 0)
        trial_backward(&trial);
    trial_free(&trial);
    return 0;
}
