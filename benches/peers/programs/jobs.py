"""What the Python pools of both sides run."""

import time


def upper(text):
    return text.upper()


def burn_1ms(text):
    return burn(0.001, text)


def burn_100ms(text):
    return burn(0.1, text)


def burn(seconds, text):
    """Uses the processor for so long, however often it is interrupted."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return text
