/* The report page's own files, put into the program by the assembler (norms_assets.c). */
#ifndef QUEST_NORMS_ASSETS_H
#define QUEST_NORMS_ASSETS_H

/* src/report/page.html with marks @@NAME@@, and src/report/report.js; both end in '\0'. */
extern const char norms_page_html[], norms_report_js[];

#endif
