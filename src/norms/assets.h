/* The report page's own files, put into the program by the assembler (assets.c). */
#ifndef QUEST_NORMS_ASSETS_H
#define QUEST_NORMS_ASSETS_H

/* src/norms/page/page.html with marks @@NAME@@, and src/norms/page/report.js; both end in '\0'. */
extern const char norms_page_html[], norms_report_js[];

#endif
