# The table of S0 in the method's README, images of noise; it needs no data.
_base_ = './search_s0_resnet110_100-classes_quickstart-cifar10.py'

search = dict(images='noise')
