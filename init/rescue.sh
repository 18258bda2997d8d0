#!/bin/busybox sh
# A shell for whoever presses Enter, then or else a reboot. $1: busybox; $2: seconds to wait, also the shortest time between
# two boots that fail. The prompt is on /dev/console, the last console= of the command line. Only built-ins and busybox.
busybox=$1 seconds=$2
exec </dev/console >/dev/console 2>&1
"$busybox" --install -s /bin
before=$("$busybox" date +%s)
echo "Press Enter within $seconds s for a shell; else this host reboots and tries again."
if read -r -t "$seconds" answer; then
  echo 'Build OS: rescue shell. exit reboots this host.'
  "$busybox" setsid "$busybox" cttyhack "$busybox" sh
else
  # read came back at once: nobody can type on this console. Wait all the same, or a farm would hammer its boot server.
  "$busybox" sleep $((before + seconds - $("$busybox" date +%s)))
fi
echo 'Build OS: rebooting.'
"$busybox" reboot -f
"$busybox" sleep 10
echo b >/proc/sysrq-trigger
while :; do "$busybox" sleep 3600; done
