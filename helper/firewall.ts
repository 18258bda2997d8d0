/**
 * The machines' firewall, the nftables table `inet buildos`.
 *
 *     machine ── br1 ──► host: its own TFTP port; what belongs to a transfer; DNS, DHCP, ping. Nothing else
 *                   └──► outside: yes, from the host's address. Another machine: no
 *
 * A source address can be trusted here: a machine's namespace belongs to the host, so nobody in it can change the
 * address or open a raw socket. TFTP answers from a port of its own choice (its TID), and connection tracking is what
 * lets the machine's further packets to that port in. From elsewhere such an address is a lie: Linux takes packets for
 * any of its addresses on any interface, so they are dropped where they do not belong.
 */
import type { PortElement } from '../host/nft.ts';
import { HOST_ADDRESS } from './verb.ts';

/** Our table. */
export const TABLE = 'buildos';

/** The set in it of who may reach which UDP port of the host; an element's comment is its build. */
export const PORT_SET = 'tftp';

/** Makes the table as it should be and keeps the set's elements; one transaction. */
export function tableRuleset(bridge: string): string {
  return `add table inet ${TABLE}
flush table inet ${TABLE}
table inet ${TABLE} {
  set ${PORT_SET} { type ipv4_addr . inet_service; }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname "lo" accept
    iifname != "${bridge}" ip saddr 169.254.0.0/16 drop
    iifname != "${bridge}" ip daddr ${HOST_ADDRESS} drop
    iifname != "${bridge}" accept
    ct state established,related accept
    ip protocol icmp accept
    ip daddr ${HOST_ADDRESS} ip saddr . udp dport @${PORT_SET} accept
    udp dport { 53, 67 } accept
    tcp dport 53 accept
    reject
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "${bridge}" ip daddr 169.254.0.0/16 reject
    iifname "${bridge}" meta nfproto ipv6 reject
    oifname "${bridge}" ct state established,related accept
    oifname "${bridge}" reject
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname != "${bridge}" ip saddr 169.254.0.0/16 masquerade
  }
}
`;
}

/** Adds an element to the set; the table must be there. */
export function openPort(element: Required<PortElement>): string {
  const { address, port, comment } = element;
  return `add element inet ${TABLE} ${PORT_SET} { ${address} . ${port} comment "${comment}" }\n`;
}

/** Takes an element out of the set. */
export function closePort(element: PortElement): string {
  return `delete element inet ${TABLE} ${PORT_SET} { ${element.address} . ${element.port} }\n`;
}
