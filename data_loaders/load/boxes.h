/* Rectangles that recipes draw at random, from numbers already drawn: the rules of torchvision and timm 1.0.31. All
 * roundings go half to even, as Python's. */
#ifndef QUEST_DATA_LOADERS_LOAD_BOXES_H
#define QUEST_DATA_LOADERS_LOAD_BOXES_H

#include <stdbool.h>
#include <stddef.h>

enum { BOX_ATTEMPTS = 10 };

/* Pixels top ... top + height - 1, left ... left + width - 1. */
struct box {
    size_t top, left, height, width;
};

/* Size of a crop that covers `share` of the picture's area and is exp(log_ratio) times as wide as high. false: it does
 * not fit. The corner lies at random in 0 ... height - box->height and 0 ... width - box->width. */
bool box_crop(struct box *box, double share, double log_ratio, size_t height, size_t width);
/* After ten attempts: the whole picture, cut at the centre to a ratio of 3/4 ... 4/3. */
struct box box_crop_fallback(size_t height, size_t width);

/* Size of a box to erase that covers `share` and is exp(log_aspect) times as high as wide. false: it is not smaller
 * than the picture in both directions. The corner as above. */
bool box_erase(struct box *box, double share, double log_aspect, size_t height, size_t width);

/* timm up to 1.0.29, and DeiT with it, ends a cutmix box of odd side one pixel earlier. */
enum cutmix_rule { CUTMIX_RULE_CURRENT, CUTMIX_RULE_DEIT };
/* The box that comes from the partner, of side sqrt(1 - lambda) about a centre, clipped to the picture. Returns lambda
 * corrected to the clipped area. */
double box_cutmix(struct box *box, double lambda, size_t centre_y, size_t centre_x, size_t height, size_t width,
                  enum cutmix_rule rule);

#endif
