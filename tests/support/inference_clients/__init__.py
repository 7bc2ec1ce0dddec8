"""Programs that send rows with clients of the Open Inference Protocol, each run in the environment of its client.

Standard input is {"url", "model", "columns": {name: values}}. Standard output is the answers by the form of the request.
"""
