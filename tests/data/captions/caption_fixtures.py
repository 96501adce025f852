"""Caption files, written for a test."""


def write(folder, content, name="a.vtt"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def entry(**changes):
    return {"video": "a", "start": 1, "end": 2.5, "text": "hello"} | changes
