"""One code a language for the labels of different identifiers: `eng_Latn`, `en` and `eng` are `en`.

Reads labels; gives ISO 639-1 codes where a language has one, else ISO 639-3. What an identifier divides more finely than the
others is joined: Mandarin (`cmn`) is Chinese, Standard Arabic (`arb`) Arabic, as lid.176 has them. `zxx` is what is no language,
`und` what was not determined; codes of languages that nobody joined stay what they are.
"""

from __future__ import annotations

import re

NO_LANGUAGE, UNDETERMINED = "zxx", "und"
LID_176 = {"als": "gsw", "eml": "egl", "bh": "bih"}
"""Codes of lid.176 that are Wikipedia's, not ISO's: its `als` is Alemannic, ISO's Tosk Albanian."""

_TWO = (
    "aar:aa abk:ab afr:af aka:ak amh:am ara:ar arb:ar arg:an asm:as ava:av aym:ay ayr:ay aze:az azj:az bak:ba bam:bm bel:be "
    "ben:bn bis:bi bod:bo bos:bs bre:br bul:bg cat:ca ces:cs cha:ch che:ce chv:cv cmn:zh cor:kw cos:co cym:cy dan:da deu:de "
    "div:dv dzo:dz ekk:et ell:el eng:en epo:eo est:et eus:eu ewe:ee fao:fo fas:fa fij:fj fil:tl fin:fi fra:fr fry:fy ful:ff "
    "gla:gd gle:ga glg:gl glv:gv grn:gn gug:gn guj:gu hat:ht hau:ha hbs:sh heb:he her:hz hin:hi hrv:hr hun:hu hye:hy ibo:ig "
    "ido:io iku:iu ile:ie ina:ia ind:id isl:is ita:it jav:jv jpn:ja kal:kl kan:kn kas:ks kat:ka kau:kr kaz:kk khk:mn khm:km "
    "kik:ki kin:rw kir:ky kmr:ku kom:kv kpv:kv kon:kg kor:ko kua:kj kur:ku lao:lo lat:la lav:lv lvs:lv lim:li lin:ln lit:lt "
    "ltz:lb lub:lu lug:lg mah:mh mal:ml mar:mr mkd:mk mlg:mg plt:mg mlt:mt mon:mn mri:mi msa:ms zsm:ms mya:my nau:na nav:nv "
    "nbl:nr nde:nd ndo:ng nep:ne npi:ne nld:nl nno:nn nob:no nor:no nb:no nya:ny oci:oc oji:oj ori:or ory:or orm:om gaz:om "
    "oss:os pan:pa pes:fa pol:pl por:pt prs:fa pus:ps pbt:ps que:qu quy:qu quz:qu roh:rm ron:ro run:rn rus:ru sag:sg san:sa "
    "sin:si slk:sk slv:sl sme:se smo:sm sna:sn snd:sd som:so sot:st spa:es sqi:sq als:sq srd:sc srp:sr ssw:ss sun:su swa:sw "
    "swh:sw swe:sv tah:ty tam:ta tat:tt tel:te tgk:tg tgl:tl tha:th tir:ti ton:to tsn:tn tso:ts tuk:tk tur:tr twi:tw uig:ug "
    "ukr:uk urd:ur uzb:uz uzn:uz ven:ve vie:vi vol:vo wln:wa wol:wo xho:xh ydd:yi yid:yi yor:yo zha:za zho:zh zul:zu in:id "
    "iw:he ji:yi"
)
TWO = dict(pair.split(":") for pair in _TWO.split(" "))
"""Other codes of a language: code → the one that stands for all."""


def common(label: str, wikipedia: bool = False) -> str:
    """Return the code of a label: its part before `_` or `-`, in small letters, as its two letters where it has them.

    Args:
        label: of an identifier, without a prefix.
        wikipedia: it is one of lid.176's.

    Example:
        `eng_Latn` is `en`, `zho_Hant` `zh`, `arz_Arab` `arz`, `zxx_Zzzz` `zxx`; `zxx` and `und` are also what `noise` is.
    """
    code = re.split("[_-]", label.lower(), maxsplit=1)[0]
    if wikipedia and code in LID_176:
        return LID_176[code]
    if not re.fullmatch("[a-z]{2,3}", code):
        return UNDETERMINED
    return TWO.get(code, code)
