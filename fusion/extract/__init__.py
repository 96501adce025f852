"""From films to a feature store: what ``fusion extract`` does.

job.py           the whole job, which files it takes, and their captions
settings.py      what is extracted; a store holds features of one kind only
share.py         the files of one process: which are to be done, and what is written
films.py         from a film to its rows, the same in every process
ray_films.py     the same on a Ray cluster
ray_cluster.py   computes anything for many films on a Ray cluster
ray_start.py     connects to a cluster, or starts a Ray of this machine
decoder_pool.py  starts, watches and replaces the programs that decode
worker.py        the program that decodes, so that a crash of FFmpeg costs one file
backbone.py      a network with its preprocessing
networks.py      the networks by name
weights.py       reads, finds and names their weights
outcomes.py      the outcome of each file, and the report

Nothing is imported here: worker.py must start fast, and needs no torch.
"""
