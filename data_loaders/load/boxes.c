/* Rectangles drawn at random (boxes.h). rint rounds half to even. */
#include "data_loaders/load/boxes.h"

#include <math.h>

bool box_crop(struct box *box, double share, double log_ratio, size_t height, size_t width)
{
    double area = (double)height * (double)width * share, ratio = exp(log_ratio);
    double across = rint(sqrt(area * ratio)), down = rint(sqrt(area / ratio));
    if (!(across >= 1 && down >= 1 && across <= (double)width && down <= (double)height))
        return false;
    *box = (struct box){0, 0, (size_t)down, (size_t)across};
    return true;
}

struct box box_crop_fallback(size_t height, size_t width)
{
    const double narrowest = 3.0 / 4.0, widest = 4.0 / 3.0;
    double ratio = (double)width / (double)height;
    struct box box = {0, 0, height, width};
    if (ratio < narrowest)
        box.height = (size_t)rint((double)width / narrowest);
    else if (ratio > widest)
        box.width = (size_t)rint((double)height * widest);
    box.top = (height - box.height) / 2;
    box.left = (width - box.width) / 2;
    return box;
}

bool box_erase(struct box *box, double share, double log_aspect, size_t height, size_t width)
{
    double area = (double)height * (double)width * share, aspect = exp(log_aspect);
    double down = rint(sqrt(area * aspect)), across = rint(sqrt(area / aspect));
    if (!(down < (double)height && across < (double)width))
        return false;
    *box = (struct box){0, 0, (size_t)down, (size_t)across};
    return true;
}

/* centre - side / 2 ... centre + (side + more) / 2 of an axis, clipped. */
static void clip(size_t *first, size_t *count, size_t centre, size_t side, size_t more, size_t extent)
{
    size_t from = centre > side / 2 ? centre - side / 2 : 0, to = centre + (side + more) / 2;
    *first = from < extent ? from : extent;
    *count = (to < extent ? to : extent) - *first;
}

double box_cutmix(struct box *box, double lambda, size_t centre_y, size_t centre_x, size_t height, size_t width,
                  enum cutmix_rule rule)
{
    double part = sqrt(1 - lambda);
    size_t down = (size_t)((double)height * part), across = (size_t)((double)width * part);
    size_t more = rule == CUTMIX_RULE_CURRENT;
    clip(&box->top, &box->height, centre_y, down, more, height);
    clip(&box->left, &box->width, centre_x, across, more, width);
    return 1 - (double)(box->height * box->width) / (double)(height * width);
}
