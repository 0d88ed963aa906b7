# Stage 3 of further pre-training: the encoder of stage 2 is fine-tuned on the labels; classifier on the class token. Published:
# five runs of other seeds (randomness.seed). [ours]: layer norms have timm's epsilon, 1e-6, not 1e-12.
_base_ = [
    '../_base_/datasets/folder-labelled_further-pretrain224.py',
    '../_base_/schedules/adamw-further-pretrain_linear-10k-finetune.py',
]

# Dropout after the embeddings, the attention's projection and the MLP's second layer.
model = dict(
    type='vfd.ViTClassifier',
    model_name='vit_base_patch16_224',
    global_pool='token',
    num_classes=200,  # CUB-200
    pos_drop_rate=0.1,
    proj_drop_rate=0.1,
    mlp_hidden_drop_rate=0.0,
    head_init_std=0.02,
    checkpoint='work_dirs/further-pretrain-stage2_vit-base-p16_1xb64-linearlr-20k_folder/iter_20000.pth',
)
