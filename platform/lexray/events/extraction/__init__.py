"""From the events of a field to those of one source: apertures, regions, backgrounds and areas."""
