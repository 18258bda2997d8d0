#!/bin/sh
# Bootstraps bmake from source with nothing but a C compiler and a POSIX userland.
# bootstrap.sh FILES PREFIX, in an empty directory: FILES holds the source archive, PREFIX is where bmake goes.
set -eu
files=$1
prefix=$2

# The archive has a directory of its own, whatever its name; the script wants to be called from beside one named bmake.
mkdir bmake build
tar --extract --file "$files/bmake_20200710.orig.tar.gz" --directory bmake --strip-components=1
cd build
# Compiling is most of the work, and this make runs for seconds: unoptimised it is there a third sooner.
CFLAGS=${CFLAGS:--O0}
export CFLAGS
sh ../bmake/boot-strap --prefix="$prefix" --install
"$prefix/bin/bmake" -V MAKE_VERSION
