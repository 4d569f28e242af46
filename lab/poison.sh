#!/bin/sh
# poison ADDRESS [SIZE] | poison heal [ADDRESS] | poison count: the lab's poison register, by physical address.
register() { devmem $((0x0b000000 + $1)) 64 $2; }
check() {
    case $(($(register 0x18))) in
        0) return ;;
        1) echo "poison: the size must be a power of two, 64 or more" >&2 ;;
        2) echo "poison: not in RAM" >&2 ;;
        3) echo "poison: a bad range begins there already" >&2 ;;
        4) echo "poison: no bad range begins there" >&2 ;;
        *) echo "poison: too many bad ranges" >&2 ;;
    esac
    exit 1
}
case $1 in
    count) echo $(($(register 0))) ;;
    heal) register 0x10 "${2:-0}"; check ;;
    0x* | [0-9]*) register 8 "${2:-64}"; check; register 0 "$1"; check ;;
    *) echo "usage: poison ADDRESS [SIZE] | poison heal [ADDRESS] | poison count" >&2; exit 2 ;;
esac
