//! Reading DAGs: local blocks first, missing ones through an exchange, ahead of the reader.
