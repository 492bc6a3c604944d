"""`ffmpeg_*`: audio and video."""

from __future__ import annotations

import io
import json
import wave
from typing import Any

import pytest

from media import tone, video
from skill_task import Task

pytestmark = [pytest.mark.engine, pytest.mark.anyio]


async def probe(task: Task, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await task.good("ffmpeg_probe", input=name))
    return found


@pytest.fixture
async def film(task: Task) -> str:
    """Two seconds of video with sound."""
    await task.put("raw.y4m", video(64, 48, 50))
    await task.put("tone.wav", tone(2))
    options = ["-i", "tone.wav", "-g", "25"]
    await task.good("ffmpeg_convert", input="raw.y4m", output="film.mp4", options=options)
    return "film.mp4"


async def test_probe_describes_every_stream_as_json(task: Task, film: str) -> None:
    found = await probe(task, film)
    assert float(found["format"]["duration"]) == pytest.approx(2, abs=0.1)
    streams = {stream["codec_type"]: stream for stream in found["streams"]}
    assert (streams["video"]["width"], streams["video"]["height"]) == (64, 48)
    assert (streams["audio"]["sample_rate"], streams["audio"]["channels"]) == ("44100", 2)


async def test_convert_writes_the_format_of_the_extension(task: Task) -> None:
    await task.put("tone.wav", tone(1))
    for extension, codec in (("mp3", "mp3"), ("flac", "flac"), ("ogg", "vorbis"), ("m4a", "aac")):
        said = await task.good("ffmpeg_convert", input="tone.wav", output=f"out.{extension}")
        assert said.startswith(f"Wrote out.{extension} (")
        [stream] = (await probe(task, f"out.{extension}"))["streams"]
        assert stream["codec_name"] == codec


async def test_a_thumbnail_is_the_frame_of_that_time_in_that_width(task: Task, film: str) -> None:
    await task.good("ffmpeg_thumbnail", input=film, output="late.png", at=1.8, width=32)
    assert "PNG, 32x24" in await task.good("image_identify", inputs=["late.png"])
    await task.good("ffmpeg_thumbnail", input=film, output="early.png")
    await task.good("image_convert", input="late.png", output="late.ppm", resize="1x1!")
    await task.good("image_convert", input="early.png", output="early.ppm", resize="1x1!")
    assert (await task.get("late.ppm"))[-1] > (await task.get("early.ppm"))[-1] + 100


async def test_a_thumbnail_after_the_end_says_that_nothing_was_written(task: Task, film: str) -> None:
    assert "wrote nothing" in await task.bad("ffmpeg_thumbnail", input=film, output="never.png", at=60)
    assert "never.png" not in await task.files()


async def test_the_sound_of_a_video_comes_as_the_wanted_rate_and_channels(task: Task, film: str) -> None:
    await task.good("ffmpeg_extract_audio", input=film, output="sound.wav", sample_rate=8000, channels=1)
    with wave.open(io.BytesIO(await task.get("sound.wav"))) as sound:
        assert (sound.getframerate(), sound.getnchannels()) == (8000, 1)
        assert sound.getnframes() / 8000 == pytest.approx(2, abs=0.1)
    assert "matches no streams" in await task.bad("ffmpeg_extract_audio", input=film, output="x.wav", track=3)


@pytest.mark.parametrize(("copy", "near"), [(False, 0.05), (True, 0.25)])
async def test_a_trimmed_video_is_as_long_as_asked_and_nearly_so_when_it_is_copied(
    task: Task, film: str, copy: bool, near: float
) -> None:
    await task.good("ffmpeg_trim", input=film, output="part.mp4", start=1, duration=0.6, copy=copy)
    assert float((await probe(task, "part.mp4"))["format"]["duration"]) == pytest.approx(0.6, abs=near)


async def test_names_with_colons_and_spaces_are_files_and_no_protocols(task: Task) -> None:
    await task.put("tone.wav", tone(0.2))
    await task.good("terminal", command="mv tone.wav 'concat: a.wav'")
    await task.good("ffmpeg_convert", input="concat: a.wav", output="pipe:1.wav")
    assert (await task.good("terminal", command="ls")).splitlines() == ["concat: a.wav", "pipe:1.wav"]


async def test_the_frames_of_a_video_become_numbered_pictures(task: Task, film: str) -> None:
    said = await task.good("ffmpeg_convert", input=film, output="frames/%02d.png", options=["-r", "2"])
    assert "Wrote frames/01.png (" in said
    assert "Wrote frames/03.png (" in said


async def test_what_is_no_media_is_a_failure_in_the_programs_words_that_leaves_nothing(task: Task) -> None:
    await task.put("broken.mp4", "not a video")
    assert "Invalid data" in await task.bad("ffmpeg_probe", input="broken.mp4")
    assert "Invalid data" in await task.bad("ffmpeg_convert", input="broken.mp4", output="out.webm")
    assert await task.files() == ["broken.mp4"]


async def test_an_output_that_is_there_is_kept_unless_overwrite_says_otherwise(task: Task) -> None:
    await task.put("tone.wav", tone(0.2))
    await task.put("out.flac", "precious")
    assert "exists already" in await task.bad("ffmpeg_convert", input="tone.wav", output="out.flac")
    await task.good("ffmpeg_convert", input="tone.wav", output="out.flac", overwrite=True)
    assert (await task.get("out.flac")).startswith(b"fLaC")
