/* Puts the report page into the program at assembly time; no installed file has to be found at run time. */
#include "src/norms/assets.h"

#define EMBED(symbol, path) \
    __asm__(".pushsection .rodata\n.global " #symbol "\n" #symbol ":\n.incbin \"" path "\"\n.byte 0\n.popsection\n")

EMBED(norms_page_html, "src/norms/page/page.html");
EMBED(norms_report_js, "src/norms/page/report.js");
