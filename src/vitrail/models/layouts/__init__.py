"""Weights as other libraries name them: each file maps one library's names to ours and back, and knows nothing of files.

Ours are timm's, so that most of a timm state dict needs no map.
"""
