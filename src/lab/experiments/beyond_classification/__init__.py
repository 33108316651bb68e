"""Chapter 5b: generators and translators of few bits."""
