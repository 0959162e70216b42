#!/bin/sh
# Has one call fail, and keeps the classes that it took in target/jobs.jsa.
set -eu
java -XX:TieredStopAtLevel=1 -XX:ArchiveClassesAtExit=target/jobs.jsa -jar target/jobs.jar \
	get --server 127.0.0.1:9 --user nobody --job none > /dev/null 2>&1 || test -f target/jobs.jsa
