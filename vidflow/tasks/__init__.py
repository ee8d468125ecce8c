"""What can be trained. A task is a module with two functions:

outline(config) -> training.program.Learner     reads no data and writes nothing
build(config, workdir) -> training.loop.Task    may prepare data and models in the run folder
"""
