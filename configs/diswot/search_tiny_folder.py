# Eight small ResNets on images of a folder, in seconds on a laptop.
_base_ = './diswot_tiny_1xb8-2e_folder.py'

search = dict(
    space=dict(type='vfd.CifarResNetSpace', depths=[1, 2], num_classes=10, input_size=64),
    scorers=['sum', 'relation', 'nwot'],
    searcher=dict(type='vfd.Exhaustive'),
    limits=dict(params=300e3),
    seeds=2,
    batch_size=8,
)
