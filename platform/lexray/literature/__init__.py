"""Papers on sources: from files, SIMBAD and ADS, matched by name and by position."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "ads": ["AdsConfig", "AdsConnector"],
        "collect": ["collect_papers", "source_catalogue", "target_sources"],
        "connectors": ["Connector", "PaperMatch", "query_connectors"],
        "crossmatch": ["SourceCatalogue"],
        "file_connector": ["FileConnector"],
        "papers": ["paper_files"],
        "ranking": ["rank_papers"],
        "simbad": ["SimbadConfig", "SimbadConnector"],
        "sources": ["TargetSource", "merge_sources", "sources_from_events", "sources_from_table"],
        "table": ["LiteratureTableWriter"],
    },
)
