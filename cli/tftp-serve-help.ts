/** What `buildos tftp serve --help` says below the options. */
export const SERVE_HELP = `
Without --writable nothing can be written. Symlinks, hidden files and devices are not served, and no name leads out of DIR.
Each address of the machine gets a socket of its own, so that answers come from the address that was asked, and broadcasts
are ignored; addresses that come and go are followed.

Started as root, it binds its port and then becomes "nobody", who must be able to read DIR. Under systemd it takes the
sockets of a .socket unit instead, and needs no root at all.

Signals:
  SIGINT, SIGTERM  end all transfers, telling the clients, and exit with status 0
  SIGUSR1          print the counters

Exit status:
  0    stopped by a signal
  1    the port, the user, the folder or the metrics cannot be had
  64   usage

Examples:
  buildos tftp serve ./boot --address 127.0.0.1 --port 6969
  sudo buildos tftp serve /srv/tftp --stats --metrics 127.0.0.1:9069
  sudo buildos tftp serve /srv/tftp --json --metrics /var/lib/prometheus/node-exporter/tftp.prom

DHCP by dnsmasq on the same machine (no enable-tftp there), files from here:
  # /etc/dnsmasq.d/boot.conf
  port=0
  dhcp-range=192.0.2.100,192.0.2.200
  dhcp-match=set:efi,option:client-arch,7
  dhcp-boot=tag:efi,ipxe.efi,,192.0.2.1
  dhcp-boot=tag:!efi,undionly.kpxe,,192.0.2.1

With systemd, as a service without root:
  # /etc/systemd/system/tftp.socket
  # A line per address is better: a socket for all of them answers broadcasts, too.
  [Socket]
  ListenDatagram=0.0.0.0:69
  ListenDatagram=[::]:69
  BindIPv6Only=ipv6-only
  ReceiveBuffer=1M
  [Install]
  WantedBy=sockets.target

  # /etc/systemd/system/tftp.service
  [Service]
  Type=notify
  ExecStart=/opt/buildos/buildos tftp serve /srv/tftp --stats
  DynamicUser=yes
  ProtectSystem=strict
  ProtectHome=yes
  NoNewPrivileges=yes

  systemctl enable --now tftp.socket; journalctl -fu tftp`;
