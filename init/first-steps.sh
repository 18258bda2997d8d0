#!/bin/busybox sh
# PID 1 up to where Node can be read: it lies in a squashfs, of which only what is used is unpacked. Mounts the kernel's
# file systems, loads the modules for the root, mounts Node, becomes init/main.ts. Whatever fails ends in the rescue shell.
busybox=/bin/busybox
node=/buildos/node.squashfs

# Step, reason, what to try: as describeFailure() of init/rescue.ts has it.
fail() {
  said="
*** Build OS cannot start on this host ***
  step: $1
  why:  $2
  try:  $3
"
  for console in $("$busybox" cat /sys/class/tty/console/active); do echo "$said" >"/dev/$console"; done
  exec "$busybox" sh /rescue.sh "$busybox" 60
}

attempt() {
  step=$1 hint=$2
  shift 2
  said=$("$busybox" "$@" 2>&1) || fail "$step" "$said" "$hint"
}

# /dev without the node of the initramfs below it, /run as systemd would mount it.
hint='boot the kernel that was published with this image: its file systems are built in'
attempt 'kernel file systems' "$hint" mount -t sysfs -o nosuid,nodev,noexec sys /sys
attempt 'kernel file systems' "$hint" mount -t devtmpfs -o nosuid,mode=0755 dev /dev
attempt 'kernel file systems' "$hint" mount -t proc -o nosuid,nodev,noexec proc /proc
attempt 'kernel file systems' "$hint" mount -t tmpfs -o nosuid,nodev,mode=0755,size=20%,nr_inodes=800k tmpfs /run

# Should PID 1 crash as no program can handle (Node itself, later systemd), then a reboot is better than a dead host.
read -r seconds </proc/sys/kernel/panic && [ "$seconds" = 0 ] && echo 10 >/proc/sys/kernel/panic

while read -r module; do
  said=$("$busybox" insmod "/modules/$module" 2>&1) && continue
  case $said in *'File exists'*) continue ;; esac
  fail 'kernel modules' "$said" \
    'kernel and initrd are of different builds: publish both together, and compare them with SHA256SUMS'
done </modules/load

if ! said=$("$busybox" mount -t squashfs -o loop,ro "$node" /node 2>&1); then
  # The kernel gives a file its full size before it unpacks the content: one that is cut short has a hole at its end.
  set -- $("$busybox" stat -c '%s %b %B' "$node" 2>/dev/null)
  there=$((${2:-0} * ${3:-0}))
  [ "$there" -ge "${1:-1}" ] || said="The initrd is cut short: only $there of ${1:-all} bytes of $node are there"
  fail node "$said" \
    'compare buildos-initrd on the boot server with SHA256SUMS; fetch it over HTTP rather than TFTP; give this host more RAM'
fi

# The kernel hands on what it does not know of its command line.
unset NODE_OPTIONS
exec /node/node /main.mjs
