"""Layouts: the ways in which cases lie in folders.

A *layout* is a naming of folders and files: ISLES 2015 SISS, ISLES'22, BIDS, nnU-Net's raw data
sets, or a *manifest*, a CSV file that names the files.

These modules find files and open no image. What is wrong with one case goes into its `faults`, to
be reported when the case is prepared; what is wrong with the whole is a UserError.
"""
