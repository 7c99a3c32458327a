"""Write the schemas that the code has into their files."""

from __future__ import annotations

from loadgen.schemas import RECORDS, file_of, text_of

if __name__ == "__main__":
    for record in RECORDS:
        file_of(record).write_text(text_of(record))
