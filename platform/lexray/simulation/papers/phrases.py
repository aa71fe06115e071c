"""Templates of what papers say of a source: by fact, in the notation of `grammar.expand`."""

# A template is easier to read on one line, however long.
# ruff: noqa: E501

#: What every template may call the source.
COMMON = {
    "it": "{the source|this source|the object|this object|the X-ray source|our target}",
    "show": "{show|find|report|demonstrate|note}",
    "data": "{Chandra|ACIS|Chandra ACIS|the X-ray|our} {data|observations|exposures}",
}

BRIGHTNESS = (
    "<it> is <brightness> in X-rays.",
    "<it> is <brightness> and gives <statistics>.",
    "With <statistics>, <it> is <brightness> {in X-rays|for Chandra}.",
    "In X-rays <it> is <brightness>, with a {mean|net|time-averaged} ACIS count rate of {about|roughly|} <rate> ct/s.",
    "We <show> that <it> is <brightness>, at a <flux_word> {observed|absorbed} flux of <flux> erg cm^-2 s^-1 (0.5-7 keV).",
    "{Compared with|Relative to} {its class|other members of its class|the other sources in the field}, <it> is <brightness>.",
    "The {mean|time-averaged} {X-ray flux|0.5-7 keV flux} of <flux> erg cm^-2 s^-1 is <flux_word>, and <it> is <brightness>.",
    "<it> {appears|was found to be|turns out to be} <brightness> in <data>, with {about|some|roughly} <counts> counts.",
    "The count rate {places|puts} <it> among the <brightness> X-ray sources {known|of the survey|in the catalogue}.",
    "The {X-ray emission|X-ray counterpart} is <brightness> (<rate> counts per second in the full band).",
)

HARDNESS = (
    "The X-ray {spectrum|emission} is <hardness>.",
    "Its X-ray {colours|hardness ratios} are <hardness>: <photons>.",
    "<photons>, so that the spectrum is <hardness>.",
    "{Hardness ratios|X-ray colours} {indicate|imply|point to} a <hardness> {spectrum|spectral shape}.",
    "We <show> a <hardness> X-ray spectrum with a hardness ratio (H-S)/(H+S) of <hr>.",
    "In the {hardness|colour-colour} diagram <it> {lies among|is found with|belongs to} the <hardness> sources.",
    "The emission is <hardness>, and <photons>.",
    "{Spectrally|In its spectrum}, <it> is <hardness>.",
)

ABSORPTION = (
    "The line of sight {shows|suffers|has} <absorption> absorption, with N_H = <nh> cm^-2.",
    "There is <absorption> {photoelectric absorption|absorption below 2 keV|foreground and intrinsic absorption}.",
    "The fit requires <absorption> absorption, log N_H = <log_nh>.",
    "{Spectral fits|Our fits} give <absorption> absorbing column {density|densities}.",
    "The {column density|absorbing column} of <nh> cm^-2 amounts to <absorption> {absorption|obscuration}.",
)

#: By components of the spectrum.
SPECTRUM = {
    "power_law": (
        "The spectrum is {well described|well fitted|reproduced} by an absorbed power law with photon index <gamma>.",
        "A power law of {photon index|slope} <gamma> <steepness> {fits|describes|accounts for} the data.",
        "The continuum is a <steepness_word> power law (Gamma = <gamma>).",
    ),
    "power_law_bb": (
        "A power law with photon index <gamma> and a black body of kT = <kt_bb> keV are {needed|required|both present}.",
        "The spectrum combines {thermal emission|a black body} of <kt_bb> keV with a <steepness_word> power-law tail, Gamma = <gamma>.",
        "{A black-body component|Thermal emission} (kT = <kt_bb> keV) carries {about|roughly} <bb_percent> per cent of the flux over a power law.",
    ),
    "plasma": (
        "The spectrum is that of {an optically thin thermal plasma|a collisionally ionised plasma} with kT = <kt> keV.",
        "A single-temperature {plasma|thermal} model of <kt> keV {suffices|is adequate|fits well}.",
        "We <show> {thermal|line-dominated} emission from {plasma|gas} at <kt> keV.",
    ),
    "two_plasmas": (
        "Two thermal plasma components with kT = <kt> and <kt_hot> keV {fit the spectrum|are required|describe the data}.",
        "The emission comes from {plasma|gas} at two temperatures, a cool one of <kt> keV and a <heat> one of <kt_hot> keV.",
        "The {hotter|second} component of <kt_hot> keV carries about <hot_percent> per cent of the flux.",
    ),
    "iron": (
        "An iron {line|emission line} near 6.4 keV is {present|seen|detected}.",
        "Fluorescent Fe K{alpha|-alpha} emission at 6.4 keV {reveals|points to} cold {reflecting|dense} material.",
    ),
}

VARIABILITY = {
    "steady": (
        "The light curve is {steady|constant|flat} {throughout the observation|within the errors|on all timescales probed}.",
        "No variability is {seen|found|detected} within {any observation|the exposures}; the flux is {steady|constant}.",
        "The {X-ray flux|count rate} is consistent with {a constant|being constant} {on timescales from minutes to hours|during each observation}.",
        "A {Kolmogorov-Smirnov|Gregory-Loredo|chi-squared} test {finds no evidence for|excludes strong} variability: <it> is steady.",
        "We <show> no flares, dips or periodic signals; <it> is a {steady|persistent and constant|non-variable} emitter.",
    ),
    "flare": (
        "<it> {flares|underwent a flare|showed an X-ray flare}: a fast rise followed by an exponential decay over <timescale>.",
        "{A|An impulsive} flare {raised|increased} the count rate by a factor of <factor>, and decayed {exponentially|gradually} within <timescale>.",
        "We detect <amplitude> {flaring|flares}, with decay times {that are <relative>|of <timescale>}.",
        "The light curve is dominated by {a flare|flares} of {fast rise and slow decay|rapid onset}; the variability is <amplitude>.",
        "The {plasma|emission} {becomes hotter|hardens} during the flare, {whose peak is|which peaks at} <factor> times the quiescent level.",
        "<amplitude> flaring, with a fractional rms of <rms> per cent, {stands out|is seen} above a quiescent level.",
    ),
    "dip": (
        "The light curve shows {recurrent|repeated|} dips, during which {up to|about} <depth> per cent of the soft flux is lost.",
        "{Absorption dips|Dips} of <timescale> {interrupt|are seen in} the light curve, and the spectrum hardens {in|during} them.",
        "We <show> <amplitude> dipping, {attributed to|caused by} {clumps of gas|a bulge in the outer disk|clouds} crossing the line of sight.",
        "Dips last <timescale> and are <relative>; the soft band is {affected most|deeper than the hard one}.",
    ),
    "eclipse": (
        "{Total|Deep|Sharp} eclipses {are seen|recur} {every|with a period of} <period>, each lasting <timescale>.",
        "The flux drops {abruptly|sharply} by <depth> per cent {in|during} eclipses by the companion star.",
        "<it> is eclipsing: {box-shaped|flat-bottomed} eclipses of <timescale> {interrupt|cut into} an otherwise steady light curve.",
        "Eclipses with sharp ingress and egress, <relative>, {show|imply} a {high inclination|system seen nearly edge-on}.",
    ),
    "periodic": (
        "The X-ray flux is modulated with a period of <period>.",
        "We detect a {coherent|stable} {periodic signal|periodicity|modulation} at <period>, with a {pulsed fraction|half amplitude} of <amount> per cent.",
        "{Folding|Timing} {the data|the light curve} reveals a {periodic|quasi-sinusoidal} modulation of <depth_word> amplitude at <period>.",
        "The {modulation|periodic signal} has a period that is <relative>.",
        "{Rayleigh and Z^2 tests|A Lomb-Scargle periodogram} {give|show} {regular pulsations|a regular modulation} of <depth_word> amplitude.",
    ),
    "red_noise": (
        "The light curve shows <amplitude> aperiodic variability {on all timescales|from minutes to hours}.",
        "{Stochastic|Irregular|Erratic} variations of <amplitude> amplitude, with a fractional rms of <rms> per cent, are present.",
        "The power spectrum is {a red-noise power law|that of red noise|steep, as for red noise}, and the {flickering|variability} is <amplitude>.",
        "<it> {flickers|wanders|varies irregularly} by <rms> per cent rms within {an observation|single exposures}, without any period.",
        "We <show> <amplitude> {slow trends and irregular fluctuations|stochastic flux changes} {typical of accretion|without a characteristic timescale}.",
    ),
}

#: Where too few photons were had to see what varies.
UNDETECTED = (
    "The few counts {do not allow|preclude} {a search for|strong limits on} {short-term variability|variations}.",
    "Any variability within an observation {remains hidden|is undetected} {at this flux|given the few counts}.",
)

LONG_TERM = (
    "The flux is <long_term>.",
    "The {mean flux|count rate} is <long_term>, over {years|months to years}.",
    "Archival observations show that its flux is <long_term>.",
)

LUMINOSITY = (
    "At {a|an adopted} distance of <distance> the {unabsorbed|intrinsic} X-ray luminosity is <lx> erg s^-1.",
    "The {unabsorbed|absorption-corrected} 0.5-7 keV luminosity is {about|} <lx> erg s^-1.",
    "With log L_X = <log_lx>, <it> is {typical of|in the range of|consistent with} its class.",
)

#: What the class is, said in other wavelengths and in general.
NATURE = {
    "AGN": (
        "<it> is {an active galactic nucleus|an AGN|a quasar|a Seyfert galaxy} at redshift <redshift>.",
        "Optical spectroscopy {reveals|shows} broad {emission lines|Balmer and Mg II lines} of {a quasar|an active nucleus} at z = <redshift>.",
        "Accretion onto a supermassive black hole of {10^7|10^8|several 10^8} solar masses {powers|explains} the emission.",
        "The mid-infrared colours are those of {a dusty torus|an AGN}, and the host is {an early-type|a spiral|a faint, red} galaxy.",
        "The emission comes from a corona above the accretion disk of {an active galaxy|the active nucleus}.",
    ),
    "YSO": (
        "<it> is {a young stellar object|a T Tauri star|a pre-main-sequence star} in a {star-forming region|molecular cloud|young cluster}.",
        "The infrared excess {reveals|betrays} a circumstellar {disk|accretion disk} around a {young star|protostar}.",
        "Magnetic reconnection {in the corona of|between star and disk of} a pre-main-sequence star {heats|feeds} the plasma.",
        "It is a {member|likely member} of a cluster {only a few million years|one to three million years} old, embedded in its {natal cloud|parent molecular cloud}.",
    ),
    "LM-STAR": (
        "<it> is {a nearby low-mass star|an active M dwarf|a late-type dwarf|a K dwarf} with {an active corona|coronal X-ray emission}.",
        "The {rapid rotation|chromospheric H-alpha emission} of the {late-type|low-mass} star {explains|drives} its coronal activity.",
        "The {counterpart|optical counterpart} has a large proper motion and the colours of a {late-type|cool main-sequence} star.",
        "Coronal loops of a {cool|low-mass} dwarf {emit|produce} the X-rays; the star is in the solar neighbourhood.",
    ),
    "HM-STAR": (
        "<it> is {a massive star|an O-type star|an early B star|a Wolf-Rayet star} with a {strong|radiatively driven} wind.",
        "Shocks {embedded in|within} the stellar wind of {the OB star|a hot, massive star} {produce|emit} the X-rays.",
        "The {O star|hot star} belongs to an OB association, and log(L_X/L_bol) is {near|about} -7.",
        "The colliding winds of a massive binary {may add|contribute} {harder|additional} emission.",
    ),
    "NS": (
        "<it> is {an isolated neutron star|a pulsar|a young neutron star|a magnetar candidate}.",
        "{No optical counterpart is found|The optical counterpart is extremely faint}, as expected of {an isolated neutron star|a pulsar}.",
        "The {surface of a cooling neutron star|magnetosphere of the pulsar} {emits|produces} the X-rays.",
        "A {faint pulsar wind nebula|supernova remnant} surrounds {it|the neutron star}.",
    ),
    "LMXB": (
        "<it> is {a low-mass X-ray binary|an LMXB|a neutron star accreting from a low-mass companion}.",
        "A {late-type|low-mass} companion fills its Roche lobe and feeds {the accretion disk|a disk around the compact object}.",
        "The {faint, red|K-type} {donor|companion} and the {old population|bulge field|globular cluster} it is found in {identify|mark} a low-mass binary.",
        "Accretion onto a {neutron star|compact object} from a {Roche-lobe filling|low-mass} star powers the emission.",
    ),
    "CV": (
        "<it> is {a cataclysmic variable|an intermediate polar|a magnetic cataclysmic variable|a polar}.",
        "An accreting white dwarf with {an M dwarf|a late-type} {donor|companion} is {identified|seen} in optical spectra.",
        "Matter {falls|is channelled} onto {the magnetic poles of|} the white dwarf through a standing shock.",
        "{Balmer and He II emission lines|Strong He II 4686} {identify|mark} the white-dwarf binary.",
    ),
    "HMXB": (
        "<it> is {a high-mass X-ray binary|an HMXB|a Be/X-ray binary|a supergiant X-ray binary}.",
        "A {Be|B-type|supergiant} companion feeds the {neutron star|compact object} by its {wind|decretion disk}.",
        "The early-type {donor|companion} {shows H-alpha emission|has a dense wind}, and the compact object is {an accreting pulsar|a neutron star}.",
        "Wind accretion onto {a magnetised neutron star|an accreting pulsar} in orbit about {an OB|a massive} star powers the emission.",
    ),
}

#: What a title calls a class.
CLASS_NAMES = {
    "AGN": "{active galactic nucleus|quasar|Seyfert nucleus|AGN}",
    "YSO": "{young stellar object|T Tauri star|pre-main-sequence star}",
    "LM-STAR": "{low-mass star|M dwarf|late-type star}",
    "HM-STAR": "{massive star|O-type star|hot star}",
    "NS": "{neutron star|pulsar|isolated neutron star}",
    "LMXB": "{low-mass X-ray binary|LMXB|neutron-star binary}",
    "CV": "{cataclysmic variable|accreting white dwarf|intermediate polar}",
    "HMXB": "{high-mass X-ray binary|HMXB|wind-fed X-ray binary}",
}

VARIABILITY_NAMES = {
    "steady": "{steady|constant|quiet}",
    "flare": "{flaring|flaring|eruptive}",
    "dip": "{dipping|dipping}",
    "eclipse": "{eclipsing|eclipsing}",
    "periodic": "{pulsating|periodic|periodically modulated}",
    "red_noise": "{flickering|irregularly variable|erratic}",
}

TITLES = (
    "{Chandra observations|X-ray observations|A Chandra view} of a <hardness>, <kind> <class_name>",
    "{X-ray spectroscopy|X-ray timing and spectroscopy} of a <kind> <class_name>",
    "The nature of a <brightness>, <kind> X-ray source: a <class_name>",
    "A <brightness> and <hardness> <class_name> {seen by|in the archive of|observed with} Chandra",
    "{On|Probing|Revisiting} the X-ray {emission|properties|variability} of a <kind> <class_name>",
    "A <brightness> <class_name> {in X-rays|observed by Chandra}",
    "{X-ray emission|High-energy emission} from a <brightness> <class_name>: spectrum and {variability|light curve}",
    "{Serendipitous discovery|Identification} of a <hardness> X-ray source as a <class_name>",
)

#: Sentences that say nothing of the source.
FILLERS = (
    "We present {a detailed analysis|an analysis|a study} of {archival|new and archival} X-ray data.",
    "The data were {reduced|processed} with {CIAO|standard tools} and {the latest calibration|current calibration files}.",
    "Source events were extracted from {circular|elliptical} regions that enclose 90 per cent of the energy.",
    "{Our results|These results} {demonstrate|illustrate|underline} the {value|power} of {archival data|X-ray archives}.",
    "{Further|Deeper|Simultaneous multiwavelength} observations are {needed|required|encouraged} to {confirm|test} this {picture|interpretation}.",
    "We {discuss|consider} {the implications|several scenarios} and {compare with|place the results in the context of} earlier work.",
    "Errors are quoted at the {90|68} per cent confidence level {throughout|unless stated otherwise}.",
    "This work is part of a {systematic|larger|serendipitous} survey of X-ray sources {in the archive|observed by Chandra}.",
    "{Optical and infrared|Multiwavelength} catalogues were searched for counterparts within {one|two} arcsec{onds|}.",
    "The {catalogue|full data set} is {made available|published} {online|with this paper}.",
    "{Future|Upcoming} missions such as {Athena|AXIS|XRISM} will {improve on|extend} {this work|these measurements}.",
    "{Spectra|The spectra} were grouped to at least {15|20|one} count{s|} per bin and {fitted|modelled} in {XSPEC|Sherpa}.",
    "We {thank|acknowledge} {the mission's teams|the observatory's staff} for {their support|the observations}.",
    "{Understanding|A census of} such {objects|sources} {matters for|is important for} {population studies|models of their evolution}.",
)
