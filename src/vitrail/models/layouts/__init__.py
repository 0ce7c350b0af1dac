"""Weights as other libraries name them.

Each file maps one library's names to ours and back, and knows nothing of files. Ours are timm's, so most of timm's need
no map.
"""
