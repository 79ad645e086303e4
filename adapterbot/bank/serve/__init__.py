"""`adapterbot serve`: one base model, a tenant for each row of its batch, OpenAI's protocol."""
