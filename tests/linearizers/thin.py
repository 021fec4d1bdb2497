"""Widths at which every network of the package trains in a test's time."""

WIDTHS = {
    "mlp": 16,
    "resnet18": 2,
    "resnet34": 2,
    "resnet50": 1,
    "wrn22_8": 1,
    "wrn16_4": 1,
    "vgg19": 2,
    "vgg19_imagenet": 1,
    "cnn": 3,
}
