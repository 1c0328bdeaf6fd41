"""SGLang servers as engines: started and watched over, or given by URL. sglang itself is never imported here."""
