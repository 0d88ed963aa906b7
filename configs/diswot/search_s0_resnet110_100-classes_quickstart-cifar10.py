# The table of S0 in the method's README, real images: networks of 100 classes on the images of the quickstart, 5 seeds.
# Nothing is trained with 100 classes on ten, so no config of the winner is written.
_base_ = './search_s0_resnet110_quickstart-cifar10.py'

model = dict(student=dict(num_classes=100), teacher=dict(source=dict(num_classes=100), checkpoint='random'))
data_preprocessor = dict(num_classes=100)
train_cfg = None

search = dict(
    space=dict(num_classes=100),
    scorers=['sum', 'semantic', 'relation', 'ickd', 'quirk_first_sample_map', 'nwot'],
    seeds=5,
)
