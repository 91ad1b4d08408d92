"""Words for numbers: Gemini where it can be asked, plain templates otherwise."""
