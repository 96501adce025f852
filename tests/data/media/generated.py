"""Films of a second or two in many containers, codecs and situations, made by ffmpeg."""

import subprocess

import numpy as np

from tests.data.media.counter import picture, tone

SECONDS, FPS, RATE = 2, 25, 16_000
H264 = "-c:v libx264 -preset ultrafast -g 12 -threads 1"
H265 = "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=12:pools=1"
MPEG4 = "-c:v mpeg4 -g 12 -q:v 4"
VP8 = "-c:v libvpx -deadline realtime -cpu-used 8 -g 12 -b:v 300k"
VP9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 12 -b:v 300k"
WMV = "-c:v wmv2 -g 12 -q:v 4"
MPEG2 = "-c:v mpeg2video -g 12 -q:v 4"
CODECS = {  # by container: those of pictures and of sound; "" for none
    "mp4": [(H264, "aac"), (H265, "aac"), (MPEG4, "libmp3lame"), (VP9, "libopus")],
    "mov": [(H264, "aac"), ("-c:v mjpeg -q:v 4", "pcm_s16be"), ("-c:v qtrle", "alac")],
    "mkv": [(H264, "flac"), (MPEG2, "ac3"), ("-c:v ffv1", "pcm_s16le"), (H265, "eac3")],
    "webm": [(VP8, "libvorbis"), (VP9, "libopus")],
    "avi": [
        (MPEG4 + " -vtag XVID", "libmp3lame"),
        (H264, "ac3"),
        ("-c:v mjpeg -q:v 4", "pcm_s16le"),
        ("-c:v msmpeg4v2 -g 12 -q:v 4", "adpcm_ms"),
    ],
    "ts": [(H264, "aac"), (MPEG2, "mp2"), (H265, "ac3")],
    "mpg": [("-c:v mpeg1video -g 12 -q:v 4", "mp2"), (MPEG2 + " -f vob", "ac3")],
    "ogg": [("-c:v libtheora -g 12 -q:v 5", "libvorbis"), ("", "libopus"), ("", "flac")],
    "wav": [("", "pcm_s16le"), ("", "adpcm_ima_wav"), ("", "adpcm_ms"), ("", "pcm_mulaw")],
    "mp3": [("", "libmp3lame"), ("", "libmp3lame -write_xing 0")],
    "flac": [("", "flac")],
    "m4a": [("", "aac"), ("", "alac")],
    "gif": [("-c:v gif", "")],
    "flv": [("-c:v flv1 -g 12 -q:v 4", "libmp3lame"), (H264, "aac")],
    "wmv": [(WMV, "wmav2")],
    "nut": [(MPEG4, "pcm_s16le")],
    "caf": [("", "pcm_s16be")],
}
B_FRAMES = ("libx264", "libx265", "mpeg4", "mpeg1video", "mpeg2video")
SITUATIONS = (
    "plain",
    "b_frames",
    "variable_rate",
    "late_sound",
    "late_picture",
    "gap",
    "turned",
    "mirrored",
    "two_tracks",
    "cut",
    "headless",
    "damaged",
    "restart",
)
HAVE_GAPS = ("mp4", "mov", "mkv", "webm", "ts", "mpg", "ogg", "flv", "wmv", "nut")


def situations(container, pictures, sound):
    """The situations that a container and its codecs can have."""
    both = bool(pictures and sound)
    possible = {
        "plain": True,
        "b_frames": any(f"{codec} " in pictures for codec in B_FRAMES),
        "variable_rate": bool(pictures) and container not in ("avi", "mpg", "gif"),
        "late_sound": both and container not in ("avi", "wav"),
        "late_picture": both and container not in ("avi", "wav"),
        "gap": bool(sound) and container in HAVE_GAPS and "ogg" not in container,
        "turned": container in ("mp4", "mov"),
        "mirrored": container in ("mp4", "mov"),
        "two_tracks": both and container in ("mp4", "mov", "mkv", "ts"),
        "cut": True,
        "headless": container in ("ts", "mpg", "mp3"),
        "damaged": True,
        "restart": container in ("ts", "mpg", "ogg", "mp3"),
    }
    return [name for name in SITUATIONS if possible[name]]


def combinations(first_codecs_only=False):
    """All containers with their codecs and situations."""
    for container, codecs in CODECS.items():
        for number, (pictures, sound) in enumerate(codecs[:1] if first_codecs_only else codecs):
            for situation in situations(container, pictures, sound):
                yield container, number, situation


class Maker:
    """Makes films in a folder with a program, ffmpeg."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        folder.mkdir(parents=True, exist_ok=True)
        shown = np.stack([picture(k, cell=10) for k in range(SECONDS * FPS)])  # 60 x 80
        (folder / "raw.rgb").write_bytes(shown.tobytes())
        wave = (tone(SECONDS, RATE) * 32_767).astype("<i2")
        (folder / "raw.s16").write_bytes(wave.tobytes())

    def run(self, *words):
        command = [self.program, "-nostdin", "-y", "-v", "error", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")

    def make(self, container, number, situation):
        """Make a film; return its path."""
        pictures, sound = CODECS[container][number]
        path = self.folder / f"{situation}-{number}.{container}"
        if path.exists():
            return path
        if situation in ("cut", "headless", "damaged", "restart"):
            plain = self.make(container, number, "plain").read_bytes()
            path.write_bytes(getattr(self, f"_{situation}")(plain))
        else:
            self._encode(path, container, pictures, sound, situation)
        return path

    def _encode(self, path, container, pictures, sound, situation):
        raw_pictures = f"-f rawvideo -pix_fmt rgb24 -s 80x60 -r {FPS} -i {self.folder}/raw.rgb"
        raw_sound = f"-f s16le -ar {RATE} -ac 1 -i {self.folder}/raw.s16"
        shift = {"late_sound": ("", "-itsoffset 0.7 "), "late_picture": ("-itsoffset 0.7 ", "")}
        shifts = shift.get(situation, ("", ""))
        words = (shifts[0] + raw_pictures).split() if pictures else []
        words += (shifts[1] + raw_sound).split() if sound else []
        if pictures:
            coded = pictures.split()
            if "-pix_fmt" not in pictures and "qtrle" not in pictures and container != "gif":
                coded += ["-pix_fmt", "yuvj420p" if "mjpeg" in pictures else "yuv420p"]
            if situation == "b_frames":
                coded += ["-bf", "2"]
                if "libx265" not in pictures and "libx264" not in pictures:
                    coded += ["-b_strategy", "0"]
            elif any(codec in pictures for codec in B_FRAMES):
                coded += ["-bf", "0"]
            if situation == "variable_rate":
                coded += ["-vf", "select='not(between(n,5,9)+eq(mod(n,7),3)+between(n,30,41))'"]
                coded += ["-fps_mode", "vfr"]
            words += coded
        if sound:
            words += ["-c:a", *sound.split()]
            if container == "flv":
                words += ["-ar", "22050"]
            if situation == "gap":
                words += ["-af", "aselect='not(between(t,0.6,1.2))'"]
        if situation == "two_tracks":
            words = [*raw_sound.split(), *words]  # the first sound is of input 0
            words += ["-map", "1:v", "-map", "0:a", "-map", "2:a"]
            words += ["-filter:a:0", "volume=0.1", "-disposition:a:0", "0"]
            words += ["-disposition:a:1", "default"]
        if situation in ("turned", "mirrored"):
            plain = path.with_name("unturned" + path.suffix)
            self.run(*words, "-strict", "-2", plain)
            marks = ["-display_rotation:v:0", "90"]
            marks += ["-display_hflip:v:0"] if situation == "mirrored" else []
            self.run(*marks, "-i", plain, "-c", "copy", path)
            return
        words += ["-movflags", "faststart"] if container in ("mp4", "mov", "m4a") else []
        self.run(*words, "-strict", "-2", path)

    def _cut(self, data):
        return data[: len(data) * 55 // 100]

    def _headless(self, data):
        return data[len(data) * 30 // 100 :]

    def _restart(self, data):
        return data + data

    def _damaged(self, data):
        """Bytes at three places are lost: a few are overwritten."""
        damaged, draw = bytearray(data), np.random.default_rng(0)
        for share in (0.4, 0.55, 0.7):
            place = int(len(damaged) * share)
            noise = draw.bytes(40)
            damaged[place : place + 40] = noise[: len(damaged[place : place + 40])]
        return bytes(damaged)
