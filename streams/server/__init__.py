"""The server: the models of one mailbox behind the API that OpenAI's clients speak, with what is needed to run it."""
