"""What a site or a campaign decides: typed models, defaults, presets and examples."""
