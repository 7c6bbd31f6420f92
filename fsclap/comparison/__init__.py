"""Systems x corpora x seeds, and one report of them: the tables of the paper, made again.

settings    which systems, on what, with which budget; a row's settings of the training
grid        the cells, the folders of their models, and what became of them
scores      each query's expected figures in a pool of a given size; pairs of systems compared
paper       the figures that the paper prints
compare     from finished cells to figures with intervals
report      the page, CSV and LaTeX
"""
