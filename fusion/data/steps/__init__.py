"""Data sets of films with steps, by the names that configs use."""

from fusion.data.steps.demo import demo_steps
from fusion.data.steps.films import CrossTask, MiningYouTube, StepVideos

STEP_SETS = {
    "steps": StepVideos,
    "crosstask": CrossTask,
    "mining_youtube": MiningYouTube,
    "demo_steps": demo_steps,
}
