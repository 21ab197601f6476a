"""Tables in files, read and written the same way for training and for serving.

file -> decoding -> dialect -> chunks of rows -> writing -> another file

formats     the one list of formats, suffixes and media types
decoding    bytes of a text file: decompressed, decoded to UTF-8, bounded
numbers     the one parser of numbers, including decimal and thousands marks
dialects    separator, header, row names, quoting and decimal marks of delimited text
chunks      some rows of a table, with what is wrong with them
delimited   CSV and TSV -> chunks
jsonlines   JSON lines -> chunks
parquet, thrift   Parquet -> chunks, bounded by the decoded width
excel       a sheet of an .xlsx workbook -> chunks
reading     `open_table`, which chooses among these
values      the values of columns as Python's
options     the command-line options that say how a table is read
writing     chunks -> CSV, TSV, JSON lines, Parquet
"""
