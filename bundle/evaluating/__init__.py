"""The evaluation jobs: of a generator, whose images they make, and of folders of images from anywhere.

Both look at all images with the same instruments, and leave what is measured to ``assessment``.
"""
