/* Every key of a run, one row each. */
#include "src/config/schema.h"

#include <string.h>

#include "kernels/attention_kinds.h"

const char *const config_dtype_names[] = {"fp32", "bf16", NULL};
const char *const config_recipe_names[] = {"none", "deit", "deit_finetune", "deit3", "deit3_finetune", NULL};
static const char *const switch_names[] = {"auto", "on", "off", NULL};
const char *const config_optimiser_names[] = {"adamw", "lamb", "sgd", "muon", "nmuon", NULL};
static const char *const action_names[] = {"log", "checkpoint", "rewind", "stop", NULL};
static const char *const mix_per_names[] = {"batch", "image", NULL};
static const char *const cutmix_rule_names[] = {"timm", "deit", NULL};
static const char *const interpolation_names[] = {"fast", "bilinear", "bicubic", NULL};
static const char *const products_names[] = {"auto", "tuned", "first", "plain", NULL};
static const char *const schedule_names[] = {"cosine", "constant", "timm_updates", "timm_epochs", "deit", NULL};
static const char *const drop_path_names[] = {"linear", "constant", NULL};
static const char *const loss_names[] = {"cross_entropy", "bce", NULL};

#define FIELD(member)        offsetof(struct config, member), sizeof(((struct config *)0)->member)
#define INTEGER(member)      CONFIG_INTEGER, FIELD(member)
#define REAL(member)         CONFIG_REAL, FIELD(member)
#define BOOLEAN(member)      CONFIG_BOOLEAN, FIELD(member)
#define TEXT(member)         CONFIG_TEXT, FIELD(member)
#define CHOICE(member, list) CONFIG_CHOICE, FIELD(member), .names = (list)

/* clang-format off: a row reads as path, field, default; limits; unit; meaning */
const struct config_key config_keys[] = {
    {"recipe", CHOICE(recipe, config_recipe_names), .initial = "none", .unit = "",
     .meaning = "a published training, which gives the keys that are not given here; some depend on model.preset "
                "(docs/recipes.md)"},
    {"model.preset", TEXT(model.preset), .initial = "", .unit = "",
     .meaning = "vit_tiny, vit_small, vit_base, vit_large (patch 16) or vit_huge (patch 14): gives patch_size, dim, "
                "depth and heads where they are not given"},
    {"model.image_size", INTEGER(model.image_size), .initial = "224", .minimum = 1, .maximum = 16384, .unit = "pixels",
     .meaning = "side of the square image that the model sees; a multiple of patch_size"},
    {"model.patch_size", INTEGER(model.patch_size), .minimum = 1, .maximum = 1024, .unit = "pixels",
     .meaning = "side of a patch; without a preset 16"},
    {"model.dim", INTEGER(model.dim), .minimum = 16, .maximum = 65536, .unit = "",
     .meaning = "width of a token; dim / heads is a multiple of 8 and at most 256"},
    {"model.depth", INTEGER(model.depth), .minimum = 1, .maximum = 1024, .unit = "blocks",
     .meaning = "transformer blocks"},
    {"model.heads", INTEGER(model.heads), .minimum = 1, .maximum = 4096, .unit = "",
     .meaning = "attention heads; divides dim"},
    {"model.mlp_ratio", REAL(model.mlp_ratio), .initial = "4.0", .minimum = 0, .above = true, .maximum = 64, .unit = "",
     .meaning = "width of the MLP's hidden layer over dim (rounded down)"},
    {"model.classes", INTEGER(model.classes), .initial = "0", .minimum = 0, .maximum = 1000000, .unit = "classes",
     .meaning = "outputs of the head; 0 = as many as the dataset has"},
    {"model.layer_scale", REAL(model.layer_scale), .initial = "0.0", .minimum = 0, .maximum = 1, .unit = "",
     .meaning = "initial value of LayerScale's factors (DeiT III: 1.0e-4); 0 = without LayerScale"},
    {"model.drop_path", REAL(model.drop_path), .initial = "0.0", .minimum = 0, .maximum = 1, .below = true, .unit = "",
     .meaning = "stochastic depth: probability of dropping the last block's branches"},
    {"model.drop_path_rule", CHOICE(model.drop_path_rule, drop_path_names), .initial = "linear", .unit = "",
     .meaning = "of the other blocks: rising linearly from 0 at the first (DeiT), or the same in all (DeiT III)"},
    {"model.freeze", TEXT(model.freeze), .initial = "", .unit = "",
     .meaning = "what is not trained: all_but_head, or a number: the embedding and the first so many blocks; empty = "
                "all is trained (docs/recipes.md)"},

    {"attention.kind", CHOICE(attention.kind, attention_kind_names), .initial = "quest", .unit = "",
     .meaning = "how logits are made of queries and keys (docs/mathematics.md)"},

    {"data.train", TEXT(data.train), .initial = "", .unit = "",
     .meaning = "dataset to train on (docs/data.md), a file or a pattern such as train-*.h5; required for training"},
    {"data.val", TEXT(data.val), .initial = "", .unit = "",
     .meaning = "dataset to evaluate on, also a pattern; empty = no evaluation"},
    {"data.stage", TEXT(data.stage), .initial = "", .unit = "",
     .meaning =
         "a folder on a disk of each host: dataset files are copied there first, once a host; empty = no copies"},
    {"data.shuffle", BOOLEAN(data.shuffle), .initial = "true", .unit = "",
     .meaning = "a new random order each epoch; false: the order of the file"},
    {"data.shuffle_window", INTEGER(data.shuffle_window), .initial = "0", .minimum = 0, .maximum = 4000000000,
     .unit = "images",
     .meaning =
         "shuffle so that so many images in a row come from 256 places of the files (docs/data.md); 0 = no limit"},
    {"data.workers", INTEGER(data.workers), .initial = "2", .minimum = 1, .maximum = 256, .unit = "threads",
     .meaning = "threads a rank that read, decode and augment"},
    {"data.prefetch", INTEGER(data.prefetch), .initial = "4", .minimum = 1, .maximum = 1024, .unit = "batches",
     .meaning = "batches a rank that are kept ready"},
    {"data.interpolation", CHOICE(data.interpolation, interpolation_names), .initial = "fast", .unit = "",
     .meaning =
         "how pictures are resized: as Pillow does, bit for bit (bilinear, bicubic), or bilinear with JPEG streams "
         "decoded smaller where the crop allows it (fast)"},
    {"data.reduced_decode", BOOLEAN(data.reduced_decode), .initial = "false", .unit = "",
     .meaning =
         "training: decode JPEG streams at 1/2, 1/4 or 1/8 where the crop keeps image_size pixels, before bilinear "
         "and bicubic too (docs/recipes.md)"},
    {"data.crop_pct", REAL(data.crop_pct), .initial = "1.0", .minimum = 0, .above = true, .maximum = 1, .unit = "",
     .meaning = "evaluation: the shorter side becomes image_size / crop_pct, of which the centre is cut (timm: 0.875)"},
    {"data.augment.flip", BOOLEAN(data.augment.flip), .initial = "false", .unit = "",
     .meaning = "mirror an image left to right with probability 1/2"},
    {"data.augment.crop_padding", INTEGER(data.augment.crop_padding), .initial = "0", .minimum = 0, .maximum = 1024,
     .unit = "pixels", .meaning = "pad with zeros by this much on every side and cut at random; 0 = off"},
    {"data.augment.random_resized_crop", BOOLEAN(data.augment.random_resized_crop), .initial = "false", .unit = "",
     .meaning = "cut a random rectangle (aspect 3/4 to 4/3) and resize it to image_size"},
    {"data.augment.crop_scale_min", REAL(data.augment.crop_scale_min), .initial = "0.08", .minimum = 0, .above = true,
     .maximum = 1, .unit = "", .meaning = "random_resized_crop: smallest share of the image's area"},
    {"data.augment.crop_scale_max", REAL(data.augment.crop_scale_max), .initial = "1.0", .minimum = 0, .above = true,
     .maximum = 1, .unit = "", .meaning = "random_resized_crop: largest share of the image's area"},
    {"data.augment.simple_crop", BOOLEAN(data.augment.simple_crop), .initial = "false", .unit = "",
     .meaning = "DeiT III's: shorter side to image_size, 4 pixels reflected on every side, a random square"},
    {"data.augment.rand_augment", TEXT(data.augment.rand_augment), .initial = "", .unit = "",
     .meaning = "timm's policy of random operations, such as rand-m9-mstd0.5-inc1; empty = none"},
    {"data.augment.three_augment", BOOLEAN(data.augment.three_augment), .initial = "false", .unit = "",
     .meaning = "DeiT III's: one of greyscale, solarise and Gaussian blur"},
    {"data.augment.color_jitter", REAL(data.augment.color_jitter), .initial = "0.0", .minimum = 0, .maximum = 10,
     .unit = "",
     .meaning = "brightness, contrast and saturation change by up to this share; not beside rand_augment, as in timm"},
    {"data.augment.repeats", INTEGER(data.augment.repeats), .initial = "1", .minimum = 1, .maximum = 64,
     .unit = "times",
     .meaning = "repeated augmentation: an image comes so often in a row, each time augmented anew; an epoch keeps its "
                "number of samples (DeiT: 3)"},
    {"data.augment.erase_probability", REAL(data.augment.erase_probability), .initial = "0.0", .minimum = 0,
     .maximum = 1, .unit = "",
     .meaning = "random erasing: how often a rectangle of an image becomes noise, after normalisation (DeiT: 0.25)"},
    {"data.augment.erase_area_min", REAL(data.augment.erase_area_min), .initial = "0.02", .minimum = 0, .above = true,
     .maximum = 1, .unit = "", .meaning = "random erasing: smallest share of the image's area"},
    {"data.augment.erase_area_max", REAL(data.augment.erase_area_max), .initial = "0.3333333333333333", .minimum = 0,
     .above = true, .maximum = 1, .unit = "", .meaning = "random erasing: largest share of the image's area"},

    {"mix.mixup", REAL(mix.mixup), .initial = "0.0", .minimum = 0, .maximum = 1000, .unit = "",
     .meaning =
         "mixup: an image is laid over another by a weight of Beta(alpha, alpha); this is alpha (DeiT: 0.8), 0 = "
         "off"},
    {"mix.cutmix", REAL(mix.cutmix), .initial = "0.0", .minimum = 0, .maximum = 1000, .unit = "",
     .meaning =
         "cutmix: a rectangle comes from another image, its area by Beta(alpha, alpha); this is alpha (DeiT: 1), "
         "0 = off"},
    {"mix.probability", REAL(mix.probability), .initial = "1.0", .minimum = 0, .maximum = 1, .unit = "",
     .meaning = "how often images are mixed at all"},
    {"mix.switch_probability", REAL(mix.switch_probability), .initial = "0.5", .minimum = 0, .maximum = 1, .unit = "",
     .meaning = "how often cutmix is taken, where mixup is on too"},
    {"mix.per", CHOICE(mix.per, mix_per_names), .initial = "batch", .unit = "",
     .meaning = "batch: the images of a group share weight and rectangle; image: each has its own"},
    {"mix.group", INTEGER(mix.group), .initial = "0", .minimum = 0, .maximum = 1e9, .unit = "images",
     .meaning =
         "images in a row that are mixed among themselves, an even number that divides a rank's batch (timm: all "
         "of that); 0 = chosen: the largest of 16, 8, 4, 2 that divides batch_size / accumulate"},
    {"mix.cutmix_rule", CHOICE(mix.cutmix_rule, cutmix_rule_names), .initial = "timm", .unit = "",
     .meaning = "rounding of the rectangle: timm since 1.0.30, or as DeiT had it, where odd sides lose a pixel"},

    {"train.epochs", INTEGER(train.epochs), .initial = "0", .minimum = 0, .maximum = 1e9, .unit = "epochs",
     .meaning = "length of the run; exactly one of epochs and steps is given"},
    {"train.steps", INTEGER(train.steps), .initial = "0", .minimum = 0, .maximum = 1e12, .unit = "steps",
     .meaning = "length of the run in optimiser updates"},
    {"train.batch_size", INTEGER(train.batch_size), .initial = "256", .minimum = 1, .maximum = 1e9, .unit = "images",
     .meaning = "images a step over all ranks and micro-steps; a multiple of ranks x accumulate"},
    {"train.accumulate", INTEGER(train.accumulate), .initial = "1", .minimum = 1, .maximum = 1e6, .unit = "micro-steps",
     .meaning = "micro-steps whose gradients are added up to one step: less memory, the same result"},
    {"train.eval_every", INTEGER(train.eval_every), .initial = "0", .minimum = 0, .maximum = 1e12, .unit = "steps",
     .meaning = "steps between evaluations; 0 = after every epoch (the end is always evaluated)"},
    {"train.precision", CHOICE(train.precision, config_dtype_names), .initial = "fp32", .unit = "",
     .meaning = "type of activations and of the weights in matrix products; master weights and sums are always fp32"},
    {"train.seed", INTEGER(train.seed), .initial = "0", .minimum = 0, .maximum = 9007199254740991.0, .unit = "",
     .meaning = "of initialisation, order, augmentation and stochastic depth"},
    {"train.label_smoothing", REAL(train.label_smoothing), .initial = "0.0", .minimum = 0, .maximum = 1, .below = true,
     .unit = "", .meaning = "share of the target that is spread over all classes"},
    {"train.loss", CHOICE(train.loss, loss_names), .initial = "cross_entropy", .unit = "",
     .meaning = "softmax cross-entropy, or sigmoid cross-entropy of each class by itself (DeiT III); evaluation always "
                "reports the former"},
    {"train.bce_threshold", REAL(train.bce_threshold), .initial = "0.0", .minimum = -1, .maximum = 1, .below = true,
     .unit = "", .meaning = "bce: a target above it counts as 1, any other as 0; -1 = targets as they are"},
    {"train.bce_sum", BOOLEAN(train.bce_sum), .initial = "false", .unit = "",
     .meaning = "bce: sum over the classes instead of their mean"},
    {"train.recompute", BOOLEAN(train.recompute), .initial = "false", .unit = "",
     .meaning =
         "compute a block's activations again in the backward pass instead of keeping them: less memory, slower"},
    {"train.keep_inputs", CHOICE(train.keep_inputs, switch_names), .initial = "auto", .unit = "",
     .meaning =
         "keep the inputs of a block's products for the backward pass instead of making them again in it, the same "
         "bits: 1.6 times the memory, less traffic; auto: on a GPU where they fit, not on a CPU"},
    {"train.products", CHOICE(train.products, products_names), .initial = "auto", .unit = "",
     .meaning =
         "how matrix products are computed on a GPU: tuned, by the fastest of the algorithms that cuBLASLt offers "
         "(docs/products.md); first, by the one that it offers first; plain, by cublasGemmEx; auto, tuned but in the "
         "simulator first"},
    {"train.graph", CHOICE(train.graph, switch_names), .initial = "auto", .unit = "",
     .meaning = "record a step's passes as CUDA graphs and replay them, with the same bits; on several GPUs the last "
                "micro-step is not; auto: where launching takes the host more than half of the GPU's time"},

    {"optim.kind", CHOICE(optim.kind, config_optimiser_names), .initial = "adamw", .unit = "",
     .meaning =
         "the optimiser: AdamW and SGD as PyTorch's, LAMB, Muon and NMuon (Nesterov's) as timm's, without decay on "
         "one-dimensional parameters, cls_token and pos_embed"},
    {"optim.lr", REAL(optim.lr), .initial = "1.0e-3", .minimum = 0, .above = true, .unit = "",
     .meaning = "learning rate after the warm-up"},
    {"optim.min_lr", REAL(optim.min_lr), .initial = "0.0", .minimum = 0, .maximum = 1000, .unit = "",
     .meaning = "learning rate at the end of the cosine; at most lr, and not scaled by lr_base_batch"},
    {"optim.lr_base_batch", INTEGER(optim.lr_base_batch), .initial = "0", .minimum = 0, .maximum = 1e9,
     .unit = "images",
     .meaning = "lr is for this batch size and is multiplied by batch_size / it (DeiT: 512); 0 = lr as it stands"},
    {"optim.weight_decay", REAL(optim.weight_decay), .initial = "0.05", .minimum = 0, .maximum = 1000, .unit = "",
     .meaning =
         "weight decay: decoupled, with sgd part of the gradient, with lamb of the update before the trust ratio"},
    {"optim.beta1", REAL(optim.beta1), .initial = "0.9", .minimum = 0, .maximum = 1, .below = true, .unit = "",
     .meaning = "decay of the gradient's running mean"},
    {"optim.beta2", REAL(optim.beta2), .initial = "0.999", .minimum = 0, .maximum = 1, .below = true, .unit = "",
     .meaning = "decay of the squared gradient's running mean"},
    {"optim.eps", REAL(optim.eps), .initial = "1.0e-8", .minimum = 0, .above = true, .maximum = 1, .unit = "",
     .meaning = "added to the root of the squared gradient's mean"},
    {"optim.warmup_steps", INTEGER(optim.warmup_steps), .initial = "0", .minimum = 0, .maximum = 1e12, .unit = "steps",
     .meaning = "steps in which the learning rate rises linearly; fewer than the run has"},
    {"optim.schedule", CHOICE(optim.schedule, schedule_names), .initial = "cosine", .unit = "",
     .meaning = "learning rate after the warm-up: half a cosine from lr to min_lr a step, or constant; or the cosine "
                "as timm has it an update or an epoch, or an epoch late as DeiT (docs/recipes.md)"},
    {"optim.warmup_epochs", REAL(optim.warmup_epochs), .initial = "0.0", .minimum = 0, .maximum = 1e9, .unit = "epochs",
     .meaning = "the warm-up in epochs, instead of warmup_steps"},
    {"optim.warmup_lr", REAL(optim.warmup_lr), .initial = "0.0", .minimum = 0, .maximum = 1000, .unit = "",
     .meaning = "learning rate from which the warm-up rises"},
    {"optim.warmup_prefix", BOOLEAN(optim.warmup_prefix), .initial = "false", .unit = "",
     .meaning = "timm_updates, timm_epochs: the cosine begins after the warm-up instead of running under it"},
    {"optim.cooldown_epochs", REAL(optim.cooldown_epochs), .initial = "0.0", .minimum = 0, .maximum = 1e9,
     .unit = "epochs", .meaning = "timm_updates, timm_epochs: the last epochs of the run, at min_lr"},
    {"optim.clip_grad_norm", REAL(optim.clip_grad_norm), .initial = "0.0", .minimum = 0, .maximum = 1e9, .unit = "",
     .meaning = "scale the gradient down to this norm where it is larger; 0 = off"},
    {"optim.momentum", REAL(optim.momentum), .initial = "0.9", .minimum = 0, .maximum = 1, .below = true, .unit = "",
     .meaning = "sgd: what a step keeps of the sum of the gradients before it; muon, nmuon: of their mean (0.95)"},
    {"optim.nesterov", BOOLEAN(optim.nesterov), .initial = "true", .unit = "",
     .meaning = "sgd: Nesterov's momentum, which looks one step ahead"},
    {"optim.trust_clip", BOOLEAN(optim.trust_clip), .initial = "false", .unit = "",
     .meaning = "lamb: no tensor's trust ratio is more than 1"},
    {"optim.layer_decay", REAL(optim.layer_decay), .initial = "1.0", .minimum = 0, .above = true, .maximum = 1,
     .unit = "",
     .meaning = "what the learning rate is multiplied by for each layer further from the head (fine-tuning: 0.65 to "
                "0.75); 1 = the same rate everywhere"},

    {"ema.decay", REAL(ema.decay), .initial = "0.0", .minimum = 0, .maximum = 1, .below = true, .unit = "",
     .meaning = "keep a running average of the weights, of which a step leaves so much; it is evaluated and saved too "
                "(docs/recipes.md); 0 = off"},
    {"ema.warmup", BOOLEAN(ema.warmup), .initial = "false", .unit = "",
     .meaning = "timm's: the decay rises with the steps, from a copy of the weights at the first"},
    {"log.every", INTEGER(log.every), .initial = "10", .minimum = 1, .maximum = 1e12, .unit = "steps",
     .meaning = "steps between lines of metrics.jsonl"},
    {"log.tensorboard", BOOLEAN(log.tensorboard), .initial = "false", .unit = "",
     .meaning = "also write TensorBoard's event files, in the run's tensorboard directory (docs/monitoring.md)"},
    {"log.prometheus", TEXT(log.prometheus), .initial = "", .unit = "",
     .meaning =
         "file that holds the newest numbers for the node exporter's textfile collector (name it .prom); empty = "
         "none"},
    {"log.segment_mib", REAL(log.segment_mib), .initial = "0.0", .minimum = 0, .maximum = 1048576, .unit = "MiB",
     .meaning =
         "at this size norms.jsonl becomes a compressed segment and a new one goes on (docs/logs.md); 0 = never"},
    {"norms.every", INTEGER(norms.every), .initial = "10", .minimum = 0, .maximum = 1e12, .unit = "steps",
     .meaning = "steps between records of norms.jsonl; 0 = never"},
    {"diagnosis.enabled", BOOLEAN(diagnosis.enabled), .initial = "true", .unit = "",
     .meaning = "judge every logged step and write what is found to events.jsonl (docs/diagnosis.md)"},
    {"diagnosis.on_warning", CHOICE(diagnosis.on_warning, action_names), .initial = "log", .unit = "",
     .meaning =
         "what follows a warning: nothing more, a checkpoint, back to the last good checkpoint with a lower learning "
         "rate, or a checkpoint and the end of the run"},
    {"diagnosis.on_critical", CHOICE(diagnosis.on_critical, action_names), .initial = "log", .unit = "",
     .meaning = "what follows a critical event"},
    {"diagnosis.horizon_steps", REAL(diagnosis.horizon_steps), .initial = "2000.0", .minimum = 0, .above = true,
     .maximum = 1e12, .unit = "steps", .meaning = "how far ahead a fit of growing logits is believed"},
    {"diagnosis.logit_critical", REAL(diagnosis.logit_critical), .initial = "1.0e+4", .minimum = 0, .above = true,
     .maximum = 1e30, .unit = "", .meaning = "largest attention logit that is critical; a tenth of it is a warning"},
    {"diagnosis.entropy_critical", REAL(diagnosis.entropy_critical), .initial = "0.02", .minimum = 0, .maximum = 0.2,
     .unit = "", .meaning = "mean entropy of a head over log(tokens) that is critical; five times it is a warning"},
    {"diagnosis.key_outlier", REAL(diagnosis.key_outlier), .initial = "5.0", .minimum = 1, .above = true,
     .maximum = 1e6, .unit = "",
     .meaning = "largest key norm over the mean that is a warning; four times it is critical"},
    {"diagnosis.spike_z", REAL(diagnosis.spike_z), .initial = "6.0", .minimum = 1, .maximum = 1e6, .unit = "",
     .meaning = "robust z-score of loss and gradient norm that is a spike"},
    {"diagnosis.skip_z", REAL(diagnosis.skip_z), .initial = "0.0", .minimum = 0, .maximum = 1e6, .unit = "",
     .meaning = "robust z-score of the gradient norm over which a step changes nothing; 0 = no step is skipped"},
    {"diagnosis.rewind_lr_scale", REAL(diagnosis.rewind_lr_scale), .initial = "0.5", .minimum = 0, .above = true,
     .maximum = 1, .unit = "", .meaning = "what the learning rate is multiplied by at each rewind"},
    {"diagnosis.rewind_max", INTEGER(diagnosis.rewind_max), .initial = "3", .minimum = 1, .maximum = 1e6,
     .unit = "times", .meaning = "rewinds of a run; the next event that asks for one stops it"},
    {"checkpoint.every", INTEGER(checkpoint.every), .initial = "0", .minimum = 0, .maximum = 1e12, .unit = "steps",
     .meaning = "steps between checkpoints; 0 = after every epoch (the end always writes one)"},
    {"checkpoint.keep", INTEGER(checkpoint.keep), .initial = "3", .minimum = 1, .maximum = 1e6, .unit = "files",
     .meaning = "newest checkpoints that are kept, besides the best by top-1"},
    {"comm.dtype", CHOICE(comm.dtype, config_dtype_names), .initial = "fp32", .unit = "",
     .meaning = "type of gradients while they are summed over ranks"},
    {"comm.bucket_mib", REAL(comm.bucket_mib), .initial = "4.0", .minimum = 0, .above = true, .maximum = 65536,
     .unit = "MiB", .meaning = "gradients that are reduced together"},
    {"comm.timeout_s", REAL(comm.timeout_s), .initial = "300.0", .minimum = 0, .above = true, .maximum = 1e6,
     .unit = "s", .meaning = "a rank that does not answer for so long ends the run"},
};
/* clang-format on */

const size_t config_key_count = sizeof config_keys / sizeof config_keys[0];
_Static_assert(sizeof config_keys / sizeof config_keys[0] <= CONFIG_KEYS_MAX, "raise CONFIG_KEYS_MAX");

const struct config_schema config_schema = {
    .keys = config_keys,
    .count = sizeof config_keys / sizeof config_keys[0],
    .bytes = sizeof(struct config),
    .reference = "docs/configuration.md lists them",
    .header = "# The resolved configuration of a run: every key. See docs/configuration.md.\n",
};

size_t config_key_find(const struct config_schema *schema, const char *path)
{
    size_t index = 0;
    while (index < schema->count && strcmp(schema->keys[index].path, path) != 0)
        index++;
    return index;
}
