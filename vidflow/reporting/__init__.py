"""The report page of a run: `inputs` reads the folder, one module a section writes HTML, `page` puts them together."""
