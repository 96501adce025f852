"""From films to a feature store: what ``tools/extract.py`` does.

sampling.py    which pictures a backbone sees, and at which size
decoding.py    one pass over a file: pictures for every backbone, and sound
sound.py       sound of any length: samples in, log-mel spectrogram out
worker.py      the program that decodes, so that a crash or a hang of FFmpeg costs one file
decoders.py    the processes that run it: started, watched, replaced
backbones.py   networks by name, and the weights they need
weights.py     reading, finding and naming weights
rows.py        from the pictures and the sound of a film to rows of features
videos.py      which files are meant, and what they are called in the store
captions.py    captions of the videos in the store
report.py      what came out of each file
work.py        what one process does
job.py         all of it together
settings.py    what is extracted, and that a store holds one kind of features

Nothing is imported here: worker.py must start fast, and needs no torch.
"""
