"""From help sites, folders, zips and files to documents, sections and facts."""
