"""Everything that defines a Vision Transformer: sizes, and the choices that the field has added to the paper's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vitrail.models.config import (
    ImageModelConfig,
    PositiveInt,
    Rate,
    Size,
    check_heads,
    check_mlp,
    check_positions,
    check_stem,
)

Count = Annotated[int, Field(ge=0)]


class ViTConfig(ImageModelConfig):
    """Everything that defines a VisionTransformer. Raises ConfigError through `create_model` for impossible sizes."""

    kind: Literal["vit"] = "vit"
    """the family of models"""
    patch_size: Size = (16, 16)
    """rows and columns of a patch in pixels; image_size must be a multiple, but for stem=conv, which rounds up"""
    stem: Literal["linear", "conv"] = "linear"
    """linear: one projection of each patch, as in the paper; conv: log2(patch_size) 3x3 convolutions of stride 2"""
    patch_norm: bool = False
    """normalise a patch's pixels before stem=linear projects them, and the token after it"""
    embed_dim: PositiveInt = 768
    """width of a token"""
    depth: PositiveInt = 12
    """number of blocks"""
    num_heads: PositiveInt = 12
    """attention heads of a block"""
    head_dim: PositiveInt | None = None
    """width of a head; none: embed_dim / num_heads"""
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    """hidden width of the MLP, as a multiple of embed_dim"""
    mlp_layer: Literal["mlp", "swiglu"] = "mlp"
    """mlp: two layers with act_layer between them; swiglu: two layers with a SiLU gate"""
    act_layer: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu"
    """activation of mlp_layer=mlp"""
    qkv_bias: bool = True
    """biases of query, key and value"""
    proj_bias: bool = True
    """bias of the projection after attention"""
    mlp_bias: bool = True
    """biases of the MLP"""
    class_token: bool = True
    """a learned token at position 0"""
    distilled: bool = False
    """a second learned token with a head of its own, the mean of both heads answers (DeiT)"""
    reg_tokens: Count = 0
    """learned tokens that nothing reads, room for the encoder to think (registers)"""
    global_pool: Literal["token", "avg", "token_avg", "map"] = "token"
    """what the head reads: class token, mean over patches, both side by side, or attention pooling of the patches"""
    fc_norm: bool | None = None
    """normalise after pooling in place of before; none: only for global_pool=avg"""
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6
    """what is added to the variance in every norm"""
    qk_norm: bool = False
    """normalise queries and keys"""
    init_values: Annotated[float, Field(gt=0)] | None = None
    """first value of a learned factor on each channel of each branch (LayerScale); none: no such factors"""
    pos_embed: Literal["learn", "sincos2d", "rope", "none"] = "learn"
    """position information: learned, fixed 2-D sine-cosine, rotary in every block, or none"""
    no_embed_class: bool = False
    """pos_embed=learn is for patches alone, not for class token, distillation token and registers"""
    pos_embed_antialias: bool = True
    """smooth pos_embed=learn where a smaller image shrinks it, as timm does; transformers does not for most models"""
    rope_temperature: Annotated[float, Field(gt=0)] = 100.0
    """longest wave of pos_embed=rope, as a multiple of half the image's side"""
    pos_embed_std: Annotated[float, Field(ge=0)] = 0.02
    """deviation of the learned position embeddings at the start; 0: zeros"""
    padding_mask: bool = False
    """one more channel, the last, says where an image is and where its padding, which is left out; set by data.fit"""
    drop_rate: Rate = 0.0
    """dropout before the head"""
    pos_drop_rate: Rate = 0.0
    """dropout after the position embeddings"""
    patch_drop_rate: Rate = 0.0
    """part of the patches left out of each training image, which saves their time (patch dropout)"""
    proj_drop_rate: Rate = 0.0
    """dropout after the attention's projection and inside the MLP"""
    attn_drop_rate: Rate = 0.0
    """dropout of attention probabilities"""
    drop_path_rate: Rate = 0.0
    """stochastic depth of the last block; earlier blocks grow to it linearly"""

    @property
    def input_channels(self) -> int:
        """Channels of the arrays that the model takes: those of the images, and the padding's."""
        return self.in_chans + self.padding_mask

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens in front of the patches: class token, distillation token, registers."""
        return int(self.class_token) + int(self.distilled) + self.reg_tokens

    @property
    def norm_after_pooling(self) -> bool:
        """Whether the norm stands after pooling."""
        return self.global_pool == "avg" if self.fc_norm is None else self.fc_norm

    @model_validator(mode="after")
    def _check_sizes(self) -> ViTConfig:
        check_stem(self.stem, self.image_size, self.patch_size, self.embed_dim)
        if self.stem == "linear" and self.patch_size == self.image_size and min(self.patch_size) > 1:
            raise ValueError(
                f"patch_size={'x'.join(map(str, self.patch_size))} leaves one patch, and nothing to attend to; "
                "use a smaller patch_size"
            )
        if self.head_dim is None:
            check_heads(self.embed_dim, self.num_heads, "change one of them, or give head_dim")
        check_mlp(self.embed_dim, self.mlp_ratio)
        return self

    @model_validator(mode="after")
    def _check_choices(self) -> ViTConfig:
        if self.global_pool in ("token", "token_avg") and not self.class_token:
            raise ValueError(
                f"global_pool={self.global_pool!r} needs class_token=true; use global_pool='avg' or 'map' without one"
            )
        if self.global_pool == "map" and self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim={self.embed_dim} is not a multiple of num_heads={self.num_heads}, "
                "which global_pool='map' needs"
            )
        if self.distilled and (self.global_pool != "token" or self.norm_after_pooling):
            raise ValueError("distilled=true needs global_pool='token' and no fc_norm: its two tokens answer together")
        check_positions(self.pos_embed, self.embed_dim)
        head_dim = self.head_dim or self.embed_dim // self.num_heads
        if self.pos_embed == "rope" and head_dim % 4:
            raise ValueError(
                f"pos_embed='rope' needs heads of a multiple of 4, not {head_dim}; change num_heads or give head_dim"
            )
        if self.padding_mask and self.patch_drop_rate:
            raise ValueError(
                f"padding_mask=true and patch_drop_rate={self.patch_drop_rate:g} do not go together; "
                "use patch_drop_rate=0, or another fit than native"
            )
        if self.patch_norm and self.stem != "linear":
            raise ValueError("patch_norm=true needs stem='linear'; a convolutional stem has no patches to normalise")
        return self
