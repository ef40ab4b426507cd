"""A pause between two steps: nothing is lost, and the numbers are those of a run without one."""

import threading


def test_a_run_that_paused_ends_with_the_same_bytes(start, tiny_run):
    straight = start(tiny_run, "straight")
    straight.session.train(6)
    paused = start(tiny_run, "paused")
    paused.session._pause.set()
    first = paused.session.train(6, pausable=True)
    assert (first["step"], first["paused"], first["stopped"]) == (0, True, False)
    for step in range(2, 7, 2):
        paused.session.train(step, pausable=True)
        paused.session._pause.set()
        paused.session.save_checkpoint()
        assert paused.session.train(6, pausable=True)["step"] == step
    assert paused.losses() == straight.losses()
    assert paused.release() == straight.release()


def test_what_must_reach_its_step_does_not_pause(start, tiny_run):
    run = start(tiny_run, "saving")
    run.session._pause.set()
    assert run.session.train(2)["step"] == 2
    assert run.session.train(4, pausable=True)["step"] == 2  # the wish is still there
    assert run.session.train(4, pausable=True)["step"] == 4


def test_the_step_under_way_is_finished(start, tiny_run):
    run = start(tiny_run | {"gradient_accumulation_steps": 2}, "under way")
    began = threading.Event()
    feed = run.session._trainer.feed
    batch = feed.batch

    def pause_in_the_middle(number):
        if number == 3:
            run.session._pause.set()
            began.set()
        return batch(number)

    feed.batch = pause_in_the_middle
    report = run.session.train(6, pausable=True)
    assert began.is_set() and report["step"] == 2 and report["paused"]
    assert sorted(run.losses()) == [1, 2]
