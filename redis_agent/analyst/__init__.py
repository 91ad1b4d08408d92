"""The analyst: what alerts and summaries mean, in a sentence. Gemini where it answers in time, else a plain template.

Both speak of the same facts, and whatever goes wrong, the plain words are there.

    reading -> facts -> Gemini, until the deadline -> else template
"""
